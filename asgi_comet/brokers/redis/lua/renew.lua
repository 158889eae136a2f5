-- renew: gives a channel another epoch. KEYS: meta, lin.
-- ARGV: name, making, fence ('': any), fresh epoch, durable, fresh generation, topic, publish command
local r = redis.call('HMGET', KEYS[1], 'e', 's', 'c', 'i', 'x', 'K', 'r')
if not r[1] then return { 'gone' } end
if r[4] ~= ARGV[2] then return { 'ended', 'ended' } end
if r[3] then return { 'ended', r[3] } end
if ARGV[3] ~= '' and ARGV[3] ~= r[5] then return { 'fenced' } end
if r[1] ~= ARGV[4] then
  redis.call('HSET', KEYS[1], 'e', ARGV[4], 'q', r[2], 'l', lineage(KEYS[2], ARGV[6], ARGV[5]))
  tell(ARGV[8], 'e' .. ARGV[4] .. ' ' .. r[2] .. ' ' .. ARGV[1], r[6], ARGV[7], r[7])
end
return { 'ok', ARGV[4], tonumber(r[2]) }
