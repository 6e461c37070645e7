// Spring's JavaMailSender, with the properties that Spring Boot would hand to it.
import java.nio.file.*;
import org.springframework.mail.SimpleMailMessage;
import org.springframework.mail.javamail.JavaMailSenderImpl;

class SpringMail {
    public static void main(String... arguments) throws Exception {
        var env = System.getenv();
        var sender = new JavaMailSenderImpl();
        sender.setProtocol(JavaMailSenderImpl.DEFAULT_PROTOCOL);
        sender.setHost(env.get("MAIL_HOST"));
        sender.setPort(Integer.parseInt(env.get("MAIL_PORT")));
        sender.setDefaultEncoding("UTF-8");
        var properties = sender.getJavaMailProperties();
        switch (env.get("MAIL_TLS")) {
            case "starttls" -> properties.put("mail.smtp.starttls.enable", "true");
            case "implicit" -> sender.setProtocol("smtps");
        }
        if (!env.get("MAIL_TLS").equals("none")) {
            properties.put("mail." + sender.getProtocol() + ".auth", "true");
            sender.setUsername(env.get("MAIL_USER"));
            sender.setPassword(env.get("MAIL_PASSWORD"));
        }
        var message = new SimpleMailMessage();
        message.setFrom(env.get("MAIL_FROM"));
        message.setTo(env.get("MAIL_TO"));
        message.setSubject(env.get("MAIL_SUBJECT"));
        message.setText(Files.readString(Path.of("body.txt")));
        sender.send(message);
    }
}
