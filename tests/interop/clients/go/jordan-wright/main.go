// jordan-wright/email.
package main

import (
	"crypto/tls"
	"log"
	"net/smtp"
	"os"

	"github.com/jordan-wright/email"
)

func main() {
	env := os.Getenv
	place := env("MAIL_HOST") + ":" + env("MAIL_PORT")
	login := smtp.PlainAuth("", env("MAIL_USER"), env("MAIL_PASSWORD"), env("MAIL_HOST"))
	body, err := os.ReadFile("body.txt")
	try(err)
	message := email.NewEmail()
	message.From = env("MAIL_FROM")
	message.To = []string{env("MAIL_TO")}
	message.Subject = env("MAIL_SUBJECT")
	message.Text = body
	switch env("MAIL_TLS") {
	case "none":
		try(message.Send(place, nil))
	case "starttls":
		try(message.Send(place, login))
	default:
		try(message.SendWithTLS(place, login, &tls.Config{ServerName: env("MAIL_HOST")}))
	}
}

func try(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
