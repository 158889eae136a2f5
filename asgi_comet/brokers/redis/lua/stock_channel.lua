-- stock_channel: an own channel goes with its client process, also if the list of its channels was lost. KEYS: process, keys of the channel …
local p = redis.call('HMGET', KEYS[1], 's', 'x')
if p[1] and not p[2] then return 0 end
return redis.call('UNLINK', unpack(KEYS, 2))
