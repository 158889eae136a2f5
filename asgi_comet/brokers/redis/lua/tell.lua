-- tell: messages, each to own channels of many client processes. KEYS: b:WID, lin, per process and message process, pk, pc, meta, log.
-- ARGV: number, publish command, durable, fresh generation, fresh epoch, prefix of inboxes;
--   per message: notifier, '1' to end the channels as full instead, data, n, process …
-- Frames: 't' NAME \n LENGTH:DATA, then per channel \n PROCESS EPOCH OFFSET
local no, done = tonumber(ARGV[1]), redis.call('HMGET', KEYS[1], 'n', 'r')
if no == tonumber(done[1] or '0') then return done[2] end               -- the reply was lost, not the messages
if no < tonumber(done[1] or '0') then return 'stale' end                -- a connection given up long ago
local gen, fresh, publish, inboxes = lineage(KEYS[2], ARGV[4], ARGV[3]), ARGV[5], ARGV[2], ARGV[6]
local function silence(k, id, name)                                     -- it listens on no key of the notifier from now on
  local begin = name .. SEPARATOR
  for _, one in ipairs(redis.call('SMEMBERS', KEYS[k + 1])) do
    if string.sub(one, 1, #begin) == begin then
      redis.call('SREM', KEYS[k + 1], one)
      redis.call('SADD', KEYS[k + 1], SEPARATOR .. one)
    end
  end
  report(publish, inboxes, KEYS[k], 'u' .. id .. ' ' .. begin)
end
local function full(meta, log, r, top, id, name)
  redis.call('DEL', log)
  redis.call('HSET', meta, 'c', 'full', 's', top, 'f', top + 1, 'b', 0)
  if r[8] then redis.call(publish, r[8], 'c' .. r[1] .. ' full ~' .. id .. '~' .. name) end
end
local function put(k, id, name, ends, data, frames)
  local p, meta, log = redis.call('HMGET', KEYS[k], 's', 'x'), KEYS[k + 3], KEYS[k + 4]
  if not p[1] or p[2] then return 'closed' end
  local r = redis.call('HMGET', meta, 'e', 's', 'f', 'b', 'l', 'c', 'k', 'r', 'K', 'z', 'm', 'A')
  if not r[1] and not is_past(KEYS[k + 2], name) then return 'missing' end  -- a worker may open it again
  if not r[1] or r[6] then
    silence(k, id, name)
    return r[6] or 'ended'
  end
  if r[9] ~= 'P' or r[12] then return 'unknown' end                      -- not of a notifier
  local epoch, sent, size, most = r[1], tonumber(r[7] or '0'), tonumber(r[10]), tonumber(r[11])
  local m = { top = tonumber(r[2]), first = tonumber(r[3]), bytes = tonumber(r[4]) }
  held(log, m)
  if r[5] ~= gen then
    epoch = fresh; redis.call('HSET', meta, 'e', epoch, 'q', m.top, 'l', gen)
  end
  while not ends and m.top >= m.first and (m.top + 1 - m.first >= size or m.bytes + #data > most) do
    ends = m.first > sent
    if not ends then m.bytes, m.first = m.bytes - #redis.call('LPOP', log), m.first + 1 end
  end
  if ends then
    full(meta, log, r, m.top, id, name)
    silence(k, id, name)
    return 'full'
  end
  redis.call('RPUSH', log, data)
  m.top = m.top + 1
  redis.call('HSET', meta, 's', m.top, 'f', m.first, 'b', m.bytes + #data, 'u', now)
  if r[8] then
    frames[r[8]] = frames[r[8]] or { 't' .. name .. '\n' .. #data .. ':' .. data }
    table.insert(frames[r[8]], id .. ' ' .. epoch .. ' ' .. string.format('%.0f', m.top))
  end
  return epoch .. '.' .. string.format('%.0f', m.top)
end
local a, k, out = 7, 3, {}
while a <= #ARGV do
  local name, ends, data, n, frames = ARGV[a], ARGV[a + 1] == '1', ARGV[a + 2], tonumber(ARGV[a + 3]), {}
  for i = 1, n do
    local ok, line = pcall(put, k, ARGV[a + 3 + i], name, ends, data, frames)
    out[#out + 1] = ok and line or 'wrong'
    k = k + 5
  end
  for inbox, parts in pairs(frames) do redis.call(publish, inbox, table.concat(parts, '\n')) end
  a = a + 4 + n
end
local r = table.concat(out, '\n')
redis.call('HSET', KEYS[1], 'n', ARGV[1], 'r', r)
redis.call('PEXPIRE', KEYS[1], 600000)
return r
