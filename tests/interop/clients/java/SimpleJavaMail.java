// Simple Java Mail.
import java.nio.file.*;
import org.simplejavamail.api.mailer.config.TransportStrategy;
import org.simplejavamail.email.EmailBuilder;
import org.simplejavamail.mailer.MailerBuilder;

class SimpleJavaMail {
    public static void main(String... arguments) throws Exception {
        var env = System.getenv();
        var mailer = MailerBuilder.withSMTPServerHost(env.get("MAIL_HOST"))
            .withSMTPServerPort(Integer.parseInt(env.get("MAIL_PORT")));
        switch (env.get("MAIL_TLS")) {
            case "starttls" -> mailer.withTransportStrategy(TransportStrategy.SMTP_TLS);
            case "implicit" -> mailer.withTransportStrategy(TransportStrategy.SMTPS);
        }
        if (!env.get("MAIL_TLS").equals("none")) {
            mailer.withSMTPServerUsername(env.get("MAIL_USER")).withSMTPServerPassword(env.get("MAIL_PASSWORD"));
        }
        mailer.buildMailer().sendMail(EmailBuilder.startingBlank()
            .from(env.get("MAIL_FROM"))
            .to(env.get("MAIL_TO"))
            .withSubject(env.get("MAIL_SUBJECT"))
            .withPlainText(Files.readString(Path.of("body.txt")))
            .buildEmail());
    }
}
