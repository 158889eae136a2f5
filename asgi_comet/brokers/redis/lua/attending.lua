-- attending: the sessions of the client processes that listen on a key, '' for others. KEYS: per process process, pk. ARGV: NOTIFIER␟KEY
local out = {}
for k = 1, #KEYS, 2 do
  local p = redis.call('HMGET', KEYS[k], 's', 'x')
  local listens = p[1] and not p[2] and redis.call('SISMEMBER', KEYS[k + 1], ARGV[1]) == 1
  out[#out + 1] = listens and p[1] or ''
end
return out
