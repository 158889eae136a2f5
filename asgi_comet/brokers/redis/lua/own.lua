-- own: a worker begins to read the source of a channel. KEYS: meta, log, lin, own:WID, own: of the dead worker or the same.
-- ARGV: name, kind, worker, fence ('WID:n'), instead of ('': of none), '1' to keep the epoch if it may, fresh epoch,
--   durable, fresh generation, topic, publish command, making, inbox of the worker
local meta, log, worker, fence = KEYS[1], KEYS[2], ARGV[3], ARGV[4]
local r = redis.call('HMGET', meta, 'e', 's', 'f', 'b', 'l', 'c', 'K', 'A', 'o', 'x', 'h', 'y', 'i', 'r')
if not r[1] then return { 'gone' } end
if r[7] ~= ARGV[2] then return { 'unknown' } end
if r[13] ~= ARGV[12] then return { 'ended', 'ended' } end                      -- a namesake
if r[6] then return { 'ended', r[6] } end
local owner, had = r[9], r[10]
if owner and owner ~= worker and owner ~= ARGV[5] then return { 'taken', owner } end
if had and owner == worker and had ~= fence
  and tonumber(string.match(had, '%d+$')) > tonumber(string.match(fence, '%d+$')) then return { 'stale' } end
local gen = lineage(KEYS[3], ARGV[9], ARGV[8])
local m = { top = tonumber(r[2]), first = tonumber(r[3]), bytes = tonumber(r[4]), age = tonumber(r[8]) }
held(log, m)
local epoch, left = r[1], r[12] or ''                                          -- left: 'first', 'clean' or 'lost'
if had ~= fence then
  left = r[11] == '1' and 'clean' or (had or r[11]) and 'lost' or 'first'
  if left == 'lost' and ARGV[6] ~= '1' then epoch = ARGV[7] end
end
if r[5] ~= gen then epoch = ARGV[7] end
redis.call('HSET', meta, 'e', epoch, 'l', gen, 'f', m.first, 'b', m.bytes, 'o', worker, 'x', fence, 'h', '', 'y', left)
if owner and owner ~= worker then redis.call('SREM', KEYS[5], ARGV[1]) end
redis.call('SADD', KEYS[4], ARGV[1])
if epoch ~= r[1] then
  redis.call('HSET', meta, 'q', m.top)
  tell(ARGV[11], 'e' .. epoch .. ' ' .. m.top .. ' ' .. ARGV[1], r[7], ARGV[10], r[14])
end
local wish = redis.call('HGET', meta, 'v')                                    -- of a reader that came before
if wish then
  local of, upto = string.match(wish, '^(%S+) (%d+)$')
  redis.call('HDEL', meta, 'v')
  if of == epoch then redis.call(ARGV[11], ARGV[13], 'w' .. upto .. ' ' .. ARGV[1]) end
end
return { 'ok', epoch, m.top, m.first, left, r[8] or '', redis.call('LINDEX', log, -1) or '' }
