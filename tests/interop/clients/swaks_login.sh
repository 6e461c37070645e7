# swaks, by AUTH LOGIN.
AUTH=LOGIN
. "$P/swaks.sh"
