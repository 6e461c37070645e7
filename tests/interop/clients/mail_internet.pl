# Mail::Internet of MailTools, over Net::SMTP: neither TLS nor login.
use strict;
use warnings;
use Mail::Internet;

open my $file, '<:raw', 'message.eml' or die $!;
Mail::Internet->new($file)->smtpsend(
    Host => $ENV{MAIL_HOST}, Port => $ENV{MAIL_PORT}, MailFrom => $ENV{MAIL_FROM}, To => $ENV{MAIL_TO},
) or die 'not sent';
