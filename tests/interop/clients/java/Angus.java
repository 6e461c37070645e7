// Jakarta Mail, by Angus Mail.
import jakarta.mail.*;
import jakarta.mail.internet.*;
import java.nio.file.*;
import java.util.Properties;

class Angus {
    public static void main(String... arguments) throws Exception {
        var env = System.getenv();
        var scheme = env.get("MAIL_TLS").equals("implicit") ? "smtps" : "smtp";
        var properties = new Properties();
        properties.put("mail.transport.protocol.rfc822", scheme);
        properties.put("mail." + scheme + ".host", env.get("MAIL_HOST"));
        properties.put("mail." + scheme + ".port", env.get("MAIL_PORT"));
        if (env.get("MAIL_TLS").equals("starttls")) properties.put("mail.smtp.starttls.enable", "true");
        if (!env.get("MAIL_TLS").equals("none")) properties.put("mail." + scheme + ".auth", "true");
        var message = new MimeMessage(Session.getInstance(properties));
        message.setFrom(env.get("MAIL_FROM"));
        message.setRecipients(Message.RecipientType.TO, env.get("MAIL_TO"));
        message.setSubject(env.get("MAIL_SUBJECT"), "UTF-8");
        message.setText(Files.readString(Path.of("body.txt")), "UTF-8");
        if (env.get("MAIL_TLS").equals("none")) Transport.send(message);
        else Transport.send(message, env.get("MAIL_USER"), env.get("MAIL_PASSWORD"));
    }
}
