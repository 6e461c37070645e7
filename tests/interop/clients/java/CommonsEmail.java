// Apache Commons Email.
import java.nio.file.*;
import org.apache.commons.mail2.jakarta.SimpleEmail;

class CommonsEmail {
    public static void main(String... arguments) throws Exception {
        var env = System.getenv();
        var email = new SimpleEmail();
        email.setCharset("UTF-8");
        email.setHostName(env.get("MAIL_HOST"));
        email.setSmtpPort(Integer.parseInt(env.get("MAIL_PORT")));
        if (env.get("MAIL_TLS").equals("starttls")) email.setStartTLSRequired(true).setSSLCheckServerIdentity(true);
        if (env.get("MAIL_TLS").equals("implicit")) {
            email.setSslSmtpPort(env.get("MAIL_PORT"));
            email.setSSLOnConnect(true).setSSLCheckServerIdentity(true);
        }
        if (!env.get("MAIL_TLS").equals("none")) email.setAuthentication(env.get("MAIL_USER"), env.get("MAIL_PASSWORD"));
        email.setFrom(env.get("MAIL_FROM"));
        email.addTo(env.get("MAIL_TO"));
        email.setSubject(env.get("MAIL_SUBJECT"));
        email.setMsg(Files.readString(Path.of("body.txt")));
        email.send();
    }
}
