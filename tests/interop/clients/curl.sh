# curl: --crlf for a file with the machine's ends of lines.
case $MAIL_TLS in
    none) set -- smtp:// ;;
    starttls) set -- smtp:// --ssl-reqd --user "$MAIL_USER:$MAIL_PASSWORD" ;;
    implicit) set -- smtps:// --user "$MAIL_USER:$MAIL_PASSWORD" ;;
esac
url=$1$MAIL_HOST:$MAIL_PORT
shift
exec curl --silent --show-error --crlf --cacert "$MAIL_CA" --url "$url" "$@" \
    --mail-from "$MAIL_FROM" --mail-rcpt "$MAIL_TO" --upload-file message.eml
