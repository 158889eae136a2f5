-- touch: client processes are connected still. KEYS: exp. ARGV: timeout ms, processes …; returns those that have closed
local gone = {}
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then redis.call('ZADD', KEYS[1], 'GT', now + ARGV[1] + LATE, ARGV[i])
  else gone[#gone + 1] = ARGV[i] end
end
return gone
