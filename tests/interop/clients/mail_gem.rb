# The gem `mail`: STARTTLS where it is offered.
require "mail"

server = { address: ENV["MAIL_HOST"], port: ENV["MAIL_PORT"].to_i }
server[:ssl] = true if ENV["MAIL_TLS"] == "implicit"
server.update(user_name: ENV["MAIL_USER"], password: ENV["MAIL_PASSWORD"]) if ENV["MAIL_TLS"] != "none"
Mail.defaults { delivery_method :smtp, server }
Mail.deliver do
  charset = "UTF-8"
  from ENV["MAIL_FROM"]
  to ENV["MAIL_TO"]
  subject ENV["MAIL_SUBJECT"]
  body File.read("body.txt", encoding: "UTF-8")
end
