// mail.v2, which went on from gomail: STARTTLS where it is offered; TLS from the start on port 465, or where told.
package main

import (
	"log"
	"os"
	"strconv"

	"gopkg.in/mail.v2"
)

func main() {
	env := os.Getenv
	port, _ := strconv.Atoi(env("MAIL_PORT"))
	body, err := os.ReadFile("body.txt")
	if err != nil {
		log.Fatal(err)
	}
	message := mail.NewMessage()
	message.SetHeader("From", env("MAIL_FROM"))
	message.SetHeader("To", env("MAIL_TO"))
	message.SetHeader("Subject", env("MAIL_SUBJECT"))
	message.SetBody("text/plain", string(body))
	dialer := mail.NewDialer(env("MAIL_HOST"), port, "", "")
	dialer.SSL = env("MAIL_TLS") == "implicit"
	if env("MAIL_TLS") != "none" {
		dialer.Username, dialer.Password = env("MAIL_USER"), env("MAIL_PASSWORD")
	}
	if err := dialer.DialAndSend(message); err != nil {
		log.Fatal(err)
	}
}
