# git send-email: the message is a patch to it.
case $MAIL_TLS in
    none) set -- ;;
    starttls) set -- --smtp-encryption=tls ;;
    implicit) set -- --smtp-encryption=ssl ;;
esac
[ "$MAIL_TLS" = none ] || set -- "$@" --smtp-ssl-cert-path="$MAIL_CA" --smtp-user="$MAIL_USER" --smtp-pass="$MAIL_PASSWORD"
exec git send-email --quiet --confirm=never --suppress-cc=all --no-validate --smtp-server="$MAIL_HOST" \
    --smtp-server-port="$MAIL_PORT" "$@" --from="$MAIL_FROM" --to="$MAIL_TO" message.eml
