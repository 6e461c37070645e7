// go-mail: STARTTLS or nothing, unless it is told otherwise.
package main

import (
	"log"
	"os"
	"strconv"

	"github.com/wneessen/go-mail"
)

func main() {
	env := os.Getenv
	port, _ := strconv.Atoi(env("MAIL_PORT"))
	body, err := os.ReadFile("body.txt")
	try(err)
	message := mail.NewMsg()
	try(message.From(env("MAIL_FROM")))
	try(message.To(env("MAIL_TO")))
	message.Subject(env("MAIL_SUBJECT"))
	message.SetBodyString(mail.TypeTextPlain, string(body))
	options := []mail.Option{mail.WithPort(port)}
	switch env("MAIL_TLS") {
	case "none":
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	case "implicit":
		options = append(options, mail.WithSSL())
	}
	if env("MAIL_TLS") != "none" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover),
			mail.WithUsername(env("MAIL_USER")), mail.WithPassword(env("MAIL_PASSWORD")))
	}
	client, err := mail.NewClient(env("MAIL_HOST"), options...)
	try(err)
	try(client.DialAndSend(message))
}

func try(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
