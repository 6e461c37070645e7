# sendemail: STARTTLS where it is offered.
[ "$MAIL_TLS" = none ] || set -- -xu "$MAIL_USER" -xp "$MAIL_PASSWORD"
exec sendemail -q -f "$MAIL_FROM" -t "$MAIL_TO" -u "$MAIL_SUBJECT" -s "$MAIL_HOST:$MAIL_PORT" \
    -o message-charset=utf-8 -o message-file=body.txt "$@"
