// emersion/go-smtp's client.
package main

import (
	"log"
	"os"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

func main() {
	env := os.Getenv
	place := env("MAIL_HOST") + ":" + env("MAIL_PORT")
	login := sasl.NewPlainClient("", env("MAIL_USER"), env("MAIL_PASSWORD"))
	message, err := os.Open("message.eml")
	try(err)
	switch env("MAIL_TLS") {
	case "none":
		// Its SendMail insists on TLS.
		client, err := smtp.Dial(place)
		try(err)
		try(client.SendMail(env("MAIL_FROM"), []string{env("MAIL_TO")}, message))
		try(client.Quit())
	case "starttls":
		try(smtp.SendMail(place, login, env("MAIL_FROM"), []string{env("MAIL_TO")}, message))
	default:
		try(smtp.SendMailTLS(place, login, env("MAIL_FROM"), []string{env("MAIL_TO")}, message))
	}
}

func try(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
