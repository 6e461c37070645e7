# mutt: with SMTP of its own; the login in the URL.
user=$MAIL_USER:$MAIL_PASSWORD@
case $MAIL_TLS in
    none) url=smtp:// plain="set ssl_force_tls=no" ;;
    starttls) url=smtp://$user ;;
    implicit) url=smtps://$user ;;
esac
{
    echo "set smtp_url='$url$MAIL_HOST:$MAIL_PORT/'"
    echo "$plain"
    echo "set certificate_file='$MAIL_CA'"
    echo "set from='$MAIL_FROM' envelope_from_address='$MAIL_FROM' use_envelope_from=yes copy=no"
} >muttrc
exec mutt -n -F muttrc -s "$MAIL_SUBJECT" -- "$MAIL_TO" <body.txt
