-- touch: client processes are connected still. KEYS: exp, process …. ARGV: timeout ms, processes …;
--   returns those that have closed, or are lost
local gone = {}
for i = 2, #ARGV do
  local p = redis.call('HMGET', KEYS[i], 's', 'x')
  if p[1] and not p[2] then redis.call('ZADD', KEYS[1], 'GT', now + ARGV[1] + LATE, ARGV[i])  -- also if its deadline is lost
  else gone[#gone + 1] = ARGV[i] end
end
return gone
