-- want: asks the owner of a channel for messages. KEYS: meta. ARGV: name, offset, prefix of inboxes, publish command
local r = redis.call('HMGET', KEYS[1], 'o', 'c')
if not r[1] or r[2] then return 0 end
return redis.call(ARGV[4], ARGV[3] .. r[1], 'w' .. ARGV[2] .. ' ' .. ARGV[1])
