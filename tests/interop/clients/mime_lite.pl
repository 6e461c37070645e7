# MIME::Lite over Net::SMTP: its TLS does not come to an end.
use strict;
use warnings;
use Encode;
use MIME::Lite;

open my $file, '<:raw', 'body.txt' or die $!;
my $message = MIME::Lite->new(
    From => $ENV{MAIL_FROM}, To => $ENV{MAIL_TO},
    Subject => encode('MIME-Header', decode('UTF-8', $ENV{MAIL_SUBJECT})),
    Type => 'text/plain; charset=UTF-8', Encoding => 'quoted-printable', Data => join('', <$file>),
);
my @login = $ENV{MAIL_TLS} eq 'none' ? () : (AuthUser => $ENV{MAIL_USER}, AuthPass => $ENV{MAIL_PASSWORD}, SSL => 1);
$message->send('smtp', $ENV{MAIL_HOST}, Port => $ENV{MAIL_PORT}, @login) or die 'not sent';
