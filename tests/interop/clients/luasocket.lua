-- LuaSocket's smtp.send: neither TLS, nor a login without it.
local smtp = require("socket.smtp")
local file = assert(io.open("message.eml", "rb"))
local head, body = file:read("a"):match("^(.-)\n\n(.*)$")
local headers = {}
for name, value in (head .. "\n"):gmatch("([^:\n]+): ([^\n]*)\n") do
  headers[name:lower()] = value
end
assert(smtp.send({
  server = os.getenv("MAIL_HOST"),
  port = tonumber(os.getenv("MAIL_PORT")),
  from = "<" .. os.getenv("MAIL_FROM") .. ">",
  rcpt = "<" .. os.getenv("MAIL_TO") .. ">",
  source = smtp.message({ headers = headers, body = (body:gsub("\n", "\r\n")) }),
}))
