-- open: makes a channel, or takes the one of the same making. KEYS: meta, log, ids, positions, state, names, own:WID, lin
--   [, process, pc: of an own channel].
-- ARGV: name, kind, making, fresh epoch, size, most bytes, max age ms ('': none), guard, owner ('': none), fence ('': none),
--   ttl of meta, ttl of list ('': none), durable, fresh generation, traits,
--   '1' to make a channel if there is none, 'again' if it was there and may be lost, publish command
local meta, log, kind, making, age = KEYS[1], KEYS[2], ARGV[2], ARGV[3], ARGV[7]
local p = KEYS[9] and redis.call('HMGET', KEYS[9], 's', 'x', 'r', 'i') or {}
if KEYS[9] and (not p[1] or p[2]) then return { 'closed', p[2] and '' or 'lost' } end  -- lost: or closed long ago
local gen = lineage(KEYS[8], ARGV[14], ARGV[13])
local r = redis.call('HMGET', meta, 'e', 's', 'f', 'b', 'l', 'c', 'K', 'i', 'A', 'o', 'x', 'g')
local epoch, owner, fence = ARGV[4], r[10] or '', r[11] or ''
local guard = ARGV[8]
local m = { top = 0, first = 1, bytes = 0, age = tonumber(age) }
if r[1] and not r[6] then
  if r[7] ~= kind or r[8] ~= making then return { 'taken', r[7] or '', r[8] or '' } end
  if guard == '' then guard = r[12] or '' end                                  -- an older worker does not lift it
  m.top, m.first, m.bytes = tonumber(r[2]), tonumber(r[3]), tonumber(r[4])
  if (r[9] or '') == '' and age ~= '' or (r[9] or '') ~= '' and age == '' then  -- its messages have another form
    redis.call('DEL', log)
  elseif r[5] == gen then
    epoch = r[1]
  end
  held(log, m)
elseif ARGV[16] == '' then return { 'gone' }
elseif ARGV[16] == 'again' and KEYS[9] and (r[6] or redis.call('HEXISTS', KEYS[10], ':' .. own_name(ARGV[1])) == 1) then
  return { 'gone' }                                                            -- it has ended meanwhile
else
  redis.call('DEL', meta, log, KEYS[3], KEYS[4], KEYS[5])
  owner, fence = ARGV[9], ARGV[10]
  redis.call('HSET', meta, 'u', now)
  if owner ~= '' then
    redis.call('HSET', meta, 'o', owner, 'x', fence, 'y', '')
    redis.call('SADD', KEYS[7], ARGV[1])
  end
  if KEYS[9] then
    redis.call('HSET', KEYS[10], own_name(ARGV[1]), kind .. ',' .. ARGV[5])
    redis.call('HDEL', KEYS[10], ':' .. own_name(ARGV[1]))
    if p[3] then
      redis.call('HSET', meta, 'r', p[4])
      redis.call(ARGV[17], p[4], 'e' .. epoch .. ' 0 ' .. ARGV[1])
    end
  end
end
redis.call('HSET', meta, 'K', kind, 'i', making, 'e', epoch, 's', m.top, 'f', m.first, 'b', m.bytes, 'l', gen, 'z', ARGV[5],
  'm', ARGV[6], 'g', guard, 't', ARGV[15])
if epoch ~= r[1] then redis.call('HSET', meta, 'q', m.top) end
if age == '' then redis.call('HDEL', meta, 'A') else redis.call('HSET', meta, 'A', age) end
if ARGV[11] ~= '' then redis.call('PEXPIRE', meta, ARGV[11]) end
if ARGV[12] ~= '' then redis.call('PEXPIRE', log, ARGV[12]) end
if string.find(ARGV[15], 'r', 1, true) then redis.call('ZADD', KEYS[6], now, ARGV[1]) else redis.call('ZREM', KEYS[6], ARGV[1]) end
return { 'ok', epoch, m.top, m.first, owner, fence }
