# msmtp, as a sendmail that reads a message.
{
    echo account default
    echo host "$MAIL_HOST"
    echo port "$MAIL_PORT"
    echo from "$MAIL_FROM"
    if [ "$MAIL_TLS" != none ]; then
        echo auth on
        echo user "$MAIL_USER"
        echo password "$MAIL_PASSWORD"
        echo tls on
        echo tls_trust_file "$MAIL_CA"
        [ "$MAIL_TLS" = starttls ] || echo tls_starttls off
    fi
} >msmtprc
chmod 600 msmtprc
exec msmtp --file=msmtprc "$MAIL_TO" <message.eml
