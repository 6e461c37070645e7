# Net::SMTP: STARTTLS where it is offered.
require "net/smtp"

smtp = Net::SMTP.new(ENV["MAIL_HOST"], ENV["MAIL_PORT"].to_i)
smtp.enable_tls if ENV["MAIL_TLS"] == "implicit"
login = ENV["MAIL_TLS"] == "none" ? {} : { user: ENV["MAIL_USER"], secret: ENV["MAIL_PASSWORD"] }
smtp.start(**login) do |connection|
  connection.send_message File.binread("message.eml"), ENV["MAIL_FROM"], ENV["MAIL_TO"]
end
