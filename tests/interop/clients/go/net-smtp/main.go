// net/smtp of the standard library: STARTTLS where it is offered.
package main

import (
	"bytes"
	"crypto/tls"
	"log"
	"net/smtp"
	"os"
)

func main() {
	env := os.Getenv
	host, place := env("MAIL_HOST"), env("MAIL_HOST")+":"+env("MAIL_PORT")
	login := smtp.PlainAuth("", env("MAIL_USER"), env("MAIL_PASSWORD"), host)
	message, err := os.ReadFile("message.eml")
	try(err)
	switch env("MAIL_TLS") {
	case "none":
		try(smtp.SendMail(place, nil, env("MAIL_FROM"), []string{env("MAIL_TO")}, message))
	case "starttls":
		try(smtp.SendMail(place, login, env("MAIL_FROM"), []string{env("MAIL_TO")}, message))
	default:
		connection, err := tls.Dial("tcp", place, nil)
		try(err)
		client, err := smtp.NewClient(connection, host)
		try(err)
		try(client.Auth(login))
		try(client.Mail(env("MAIL_FROM")))
		try(client.Rcpt(env("MAIL_TO")))
		data, err := client.Data()
		try(err)
		_, err = bytes.NewReader(message).WriteTo(data)
		try(err)
		try(data.Close())
		try(client.Quit())
	}
}

func try(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
