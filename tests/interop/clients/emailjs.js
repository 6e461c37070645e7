// emailjs.
const fs = require("fs");
const env = process.env;

import(`${env.F}/node/node_modules/emailjs/dist/index.js`).then(({ SMTPClient }) => {
  const options = { host: env.MAIL_HOST, port: Number(env.MAIL_PORT) };
  if (env.MAIL_TLS === "implicit") options.ssl = true;
  if (env.MAIL_TLS === "starttls") options.tls = true;
  if (env.MAIL_TLS !== "none") Object.assign(options, { user: env.MAIL_USER, password: env.MAIL_PASSWORD });
  return new SMTPClient(options).sendAsync({
    from: env.MAIL_FROM,
    to: env.MAIL_TO,
    subject: env.MAIL_SUBJECT,
    text: fs.readFileSync("body.txt", "utf8").replaceAll("\n", "\r\n"), // it leaves the ends of lines to us
  });
});
