# Mail::Sendmail: neither TLS nor login.
use strict;
use warnings;
use Mail::Sendmail;

open my $file, '<:raw', 'body.txt' or die $!;
sendmail(
    Smtp => $ENV{MAIL_HOST}, Port => $ENV{MAIL_PORT}, From => $ENV{MAIL_FROM}, To => $ENV{MAIL_TO},
    Subject => $ENV{MAIL_SUBJECT}, 'Content-Type' => 'text/plain; charset=UTF-8', Message => join('', <$file>),
) or die $Mail::Sendmail::error;
