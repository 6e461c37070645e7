//! lettre with its default features.
use lettre::message::{header::ContentType, Message};
use lettre::transport::smtp::SmtpTransport;
use lettre::Transport;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let env = |name: &str| std::env::var(name).unwrap();
    let login = format!("{}:{}@", env("MAIL_USER"), env("MAIL_PASSWORD"));
    let place = format!("{}:{}", env("MAIL_HOST"), env("MAIL_PORT"));
    let url = match env("MAIL_TLS").as_str() {
        "none" => format!("smtp://{place}"),
        "starttls" => format!("smtp://{login}{place}?tls=required"),
        _ => format!("smtps://{login}{place}"),
    };
    let message = Message::builder()
        .from(env("MAIL_FROM").parse()?)
        .to(env("MAIL_TO").parse()?)
        .subject(env("MAIL_SUBJECT"))
        .header(ContentType::TEXT_PLAIN)
        .body(std::fs::read_to_string("body.txt")?)?;
    SmtpTransport::from_url(&url)?.build().send(&message)?;
    Ok(())
}
