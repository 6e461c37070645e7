<?php // Symfony Mailer by its DSN: STARTTLS where it is offered.
require 'Symfony/Component/Mailer/autoload.php';

use Symfony\Component\Mailer\Mailer;
use Symfony\Component\Mailer\Transport;
use Symfony\Component\Mime\Email;

$scheme = getenv('MAIL_TLS') == 'implicit' ? 'smtps' : 'smtp';
$login = getenv('MAIL_USER') . ':' . urlencode(getenv('MAIL_PASSWORD')) . '@';
$dsn = $scheme . '://' . (getenv('MAIL_TLS') == 'none' ? '' : $login) . getenv('MAIL_HOST') . ':' . getenv('MAIL_PORT');
$email = (new Email())
    ->from(getenv('MAIL_FROM'))
    ->to(getenv('MAIL_TO'))
    ->subject(getenv('MAIL_SUBJECT'))
    ->text(file_get_contents('body.txt'));
(new Mailer(Transport::fromDsn($dsn)))->send($email);
