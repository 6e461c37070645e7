<?php // PHPMailer: STARTTLS where it is offered.
require 'libphp-phpmailer/autoload.php';

$mail = new PHPMailer\PHPMailer\PHPMailer(true);
$mail->isSMTP();
$mail->Host = getenv('MAIL_HOST');
$mail->Port = getenv('MAIL_PORT');
$mail->CharSet = 'UTF-8';
if (getenv('MAIL_TLS') == 'implicit') {
    $mail->SMTPSecure = 'ssl';
}
if (getenv('MAIL_TLS') != 'none') {
    $mail->SMTPAuth = true;
    $mail->Username = getenv('MAIL_USER');
    $mail->Password = getenv('MAIL_PASSWORD');
}
$mail->setFrom(getenv('MAIL_FROM'));
$mail->addAddress(getenv('MAIL_TO'));
$mail->Subject = getenv('MAIL_SUBJECT');
$mail->Body = file_get_contents('body.txt');
$mail->send();
