# Rails' ActionMailer, with the settings that an application would have.
require "action_mailer"

server = { address: ENV["MAIL_HOST"], port: ENV["MAIL_PORT"].to_i }
server[:ssl] = true if ENV["MAIL_TLS"] == "implicit"
server.update(user_name: ENV["MAIL_USER"], password: ENV["MAIL_PASSWORD"]) if ENV["MAIL_TLS"] != "none"
ActionMailer::Base.smtp_settings = server

class Welcome < ActionMailer::Base
  def hello
    text = File.read("body.txt", encoding: "UTF-8")
    mail from: ENV["MAIL_FROM"], to: ENV["MAIL_TO"], subject: ENV["MAIL_SUBJECT"], body: text
  end
end

Welcome.hello.deliver_now
