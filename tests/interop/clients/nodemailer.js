// nodemailer: STARTTLS where it is offered.
const fs = require("fs");
const nodemailer = require("nodemailer");
const env = process.env;

const transport = { host: env.MAIL_HOST, port: Number(env.MAIL_PORT) };
if (env.MAIL_TLS === "implicit") transport.secure = true;
if (env.MAIL_TLS !== "none") transport.auth = { user: env.MAIL_USER, pass: env.MAIL_PASSWORD };
nodemailer.createTransport(transport).sendMail({
  from: env.MAIL_FROM,
  to: env.MAIL_TO,
  subject: env.MAIL_SUBJECT,
  text: fs.readFileSync("body.txt", "utf8"),
});
