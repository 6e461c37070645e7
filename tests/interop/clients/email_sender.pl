# Email::Sender with its transport SMTP.
use strict;
use warnings;
use Email::Sender::Simple 'sendmail';
use Email::Sender::Transport::SMTP;

open my $file, '<:raw', 'message.eml' or die $!;
my %ssl = (none => 0, starttls => 'starttls', implicit => 'ssl');
my @login = $ENV{MAIL_TLS} eq 'none' ? () : (sasl_username => $ENV{MAIL_USER}, sasl_password => $ENV{MAIL_PASSWORD});
my $transport = Email::Sender::Transport::SMTP->new(
    host => $ENV{MAIL_HOST}, port => $ENV{MAIL_PORT}, ssl => $ssl{$ENV{MAIL_TLS}}, @login,
);
sendmail(join('', <$file>), { from => $ENV{MAIL_FROM}, to => $ENV{MAIL_TO}, transport => $transport });
