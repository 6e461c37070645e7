# swaks, verifying; AUTH is a mechanism, or empty for the one that it chooses.
case $MAIL_TLS in
    none) set -- ;;
    starttls) set -- --tls ;;
    implicit) set -- --tls-on-connect ;;
esac
if [ "$MAIL_TLS" != none ]; then
    set -- "$@" --tls-verify --tls-ca-path "$MAIL_CA" \
        --auth $AUTH --auth-user "$MAIL_USER" --auth-password "$MAIL_PASSWORD"
fi
exec swaks --silent 2 --server "$MAIL_HOST" --port "$MAIL_PORT" "$@" \
    --from "$MAIL_FROM" --to "$MAIL_TO" --data @message.eml
