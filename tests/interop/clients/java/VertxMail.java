// Vert.x's mail client: STARTTLS where it is offered.
import io.vertx.core.Vertx;
import io.vertx.core.net.PemTrustOptions;
import io.vertx.ext.mail.*;
import java.nio.file.*;

class VertxMail {
    public static void main(String... arguments) throws Exception {
        var env = System.getenv();
        var config = new MailConfig().setHostname(env.get("MAIL_HOST")).setPort(Integer.parseInt(env.get("MAIL_PORT")));
        config.setTrustOptions(new PemTrustOptions().addCertPath(env.get("MAIL_CA")));
        if (env.get("MAIL_TLS").equals("implicit")) config.setSsl(true);
        if (!env.get("MAIL_TLS").equals("none")) {
            config.setUsername(env.get("MAIL_USER")).setPassword(env.get("MAIL_PASSWORD"));
        }
        var message = new MailMessage()
            .setFrom(env.get("MAIL_FROM"))
            .setTo(env.get("MAIL_TO"))
            .setSubject(env.get("MAIL_SUBJECT"))
            .setText(Files.readString(Path.of("body.txt")));
        var vertx = Vertx.vertx();
        MailClient.create(vertx, config).sendMail(message).onComplete(sent -> {
            if (sent.failed()) sent.cause().printStackTrace();
            System.exit(sent.succeeded() ? 0 : 1);
        });
    }
}
