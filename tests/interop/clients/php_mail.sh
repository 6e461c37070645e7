# PHP's own mail(), which hands the message to a sendmail: msmtp.
printf 'account default\nhost %s\nport %s\nfrom %s\n' "$MAIL_HOST" "$MAIL_PORT" "$MAIL_FROM" >.msmtprc
chmod 600 .msmtprc
exec php -d sendmail_path="msmtp -t" -r '
    $head = "From: " . getenv("MAIL_FROM") . "\r\nContent-Type: text/plain; charset=UTF-8";
    $subject = mb_encode_mimeheader(getenv("MAIL_SUBJECT"), "UTF-8");
    exit(mail(getenv("MAIL_TO"), $subject, file_get_contents("body.txt"), $head) ? 0 : 1);
'
