# Tcllib's mime and smtp: STARTTLS where it is wanted and offered.
package require mime
package require smtp

set file [open body.txt rb]
set message [mime::initialize -canonical text/plain -param {charset utf-8} -string [read $file]]
set login {}
if {$env(MAIL_TLS) ne "none"} {
    set login [list -username $env(MAIL_USER) -password $env(MAIL_PASSWORD) -usetls 1]
}
smtp::sendmessage $message -servers [list $env(MAIL_HOST)] -ports [list $env(MAIL_PORT)] {*}$login \
    -originator $env(MAIL_FROM) -header [list From $env(MAIL_FROM)] -header [list To $env(MAIL_TO)] \
    -header [list Subject [mime::word_encode utf-8 quoted-printable $env(MAIL_SUBJECT)]]
