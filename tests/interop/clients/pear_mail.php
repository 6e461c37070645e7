<?php // PEAR's Mail over Net_SMTP: STARTTLS where it is offered and there is a login.
error_reporting(E_ALL & ~E_DEPRECATED & ~E_STRICT);
require 'Mail.php';

$server = ['host' => (getenv('MAIL_TLS') == 'implicit' ? 'ssl://' : '') . getenv('MAIL_HOST'), 'port' => getenv('MAIL_PORT')];
if (getenv('MAIL_TLS') != 'none') {
    $server += ['auth' => true, 'username' => getenv('MAIL_USER'), 'password' => getenv('MAIL_PASSWORD')];
}
[$head, $body] = explode("\n\n", file_get_contents('message.eml'), 2);
$headers = [];
foreach (explode("\n", $head) as $line) {
    [$name, $value] = explode(': ', $line, 2);
    $headers[$name] = $value;
}
$sent = Mail::factory('smtp', $server)->send(getenv('MAIL_TO'), $headers, $body);
if ($sent !== true) {
    fwrite(STDERR, $sent->getMessage() . "\n");
    exit(1);
}
