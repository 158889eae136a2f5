-- want: asks the owner of a channel for messages, or leaves the request for the next owner. KEYS: meta.
-- ARGV: name, epoch ('': the present one), offset, prefix of inboxes, publish command
local r = redis.call('HMGET', KEYS[1], 'o', 'c', 'e')
if r[2] or not r[3] or (ARGV[2] ~= '' and ARGV[2] ~= r[3]) then return 0 end    -- the reader is told of the other epoch first
if not r[1] then
  redis.pcall('HSET', KEYS[1], 'v', r[3] .. ' ' .. ARGV[3])
  return 0
end
return redis.call(ARGV[5], ARGV[4] .. r[1], 'w' .. ARGV[3] .. ' ' .. ARGV[1])
