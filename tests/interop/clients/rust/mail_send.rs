//! mail-send, whose TLS is rustls.
use mail_send::mail_builder::MessageBuilder;
use mail_send::SmtpClientBuilder;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let env = |name: &str| std::env::var(name).unwrap();
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let message = MessageBuilder::new()
        .from(env("MAIL_FROM"))
        .to(env("MAIL_TO"))
        .subject(env("MAIL_SUBJECT"))
        .text_body(std::fs::read_to_string("body.txt")?);
    let builder = SmtpClientBuilder::new(env("MAIL_HOST"), env("MAIL_PORT").parse()?)?;
    if env("MAIL_TLS") == "none" {
        builder.connect_plain().await?.send(message).await?;
    } else {
        builder
            .implicit_tls(env("MAIL_TLS") == "implicit")
            .credentials((env("MAIL_USER"), env("MAIL_PASSWORD")))
            .connect()
            .await?
            .send(message)
            .await?;
    }
    Ok(())
}
