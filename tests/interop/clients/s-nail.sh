# s-nail: mailx with SMTP of its own; v15-compat has the login in the URL.
user=$MAIL_USER:$MAIL_PASSWORD@
case $MAIL_TLS in
    none) set -- "smtp://" -S smtp-auth=none ;;
    starttls) set -- "smtp://$user" -S smtp-use-starttls ;;
    implicit) set -- "smtps://$user" ;;
esac
url=$1$MAIL_HOST:$MAIL_PORT
shift
exec s-nail -n -S v15-compat -S "mta=$url" "$@" -S tls-ca-file="$MAIL_CA" -S tls-verify=strict \
    -S sendcharsets=utf-8 -S ttycharset=utf-8 -S DEAD=dead.letter -r "$MAIL_FROM" -s "$MAIL_SUBJECT" "$MAIL_TO" <body.txt
