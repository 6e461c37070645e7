# Net::SMTP of the core.
use strict;
use warnings;
use Net::SMTP;

open my $file, '<:raw', 'message.eml' or die $!;
my $smtp = Net::SMTP->new($ENV{MAIL_HOST}, Port => $ENV{MAIL_PORT}, SSL => $ENV{MAIL_TLS} eq 'implicit')
    or die "not connected: $@";
$ENV{MAIL_TLS} ne 'starttls' or $smtp->starttls or die $smtp->message, $@;
$ENV{MAIL_TLS} eq 'none' or $smtp->auth($ENV{MAIL_USER}, $ENV{MAIL_PASSWORD}) or die $smtp->message;
$smtp->mail($ENV{MAIL_FROM}) or die $smtp->message;
$smtp->to($ENV{MAIL_TO}) or die $smtp->message;
$smtp->data(join '', <$file>) or die $smtp->message;
$smtp->quit;
