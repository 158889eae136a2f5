-- append. KEYS: b:WID, lin; per channel: meta, log [ids, positions: shape has i] [state: shape has s]
-- ARGV: number, publish command, durable, fresh generation, prefix of inboxes; per channel: topic (own: name), kind, making, fence, fresh epoch,
--   size, bytes, ttl of meta, ttl of list ('': none), shape, most keys, n; per message: data [id] [sets, key, value …, deletes, key …]
local no, done = tonumber(ARGV[1]), redis.call('HMGET', KEYS[1], 'n', 'r')
if no == tonumber(done[1] or '0') then return done[2] end               -- the reply was lost, not the batch
if no < tonumber(done[1] or '0') then return 'stale' end                -- a connection given up long ago
local gen = lineage(KEYS[2], ARGV[4], ARGV[3])
local AGE, IDS, FRAME = 600000, 10000, 262144                           -- ids: 10 min, 10,000
local function group(g, k, messages)
  local topic, kind, making, fence, fresh, size, most = g[1], g[2], g[3], g[4], g[5], tonumber(g[6]), tonumber(g[7])
  local meta, log, ids, at = KEYS[k], KEYS[k + 1], g.ids and KEYS[k + 2], g.ids and KEYS[k + 3]
  local state = g.state and KEYS[k + (g.ids and 4 or 2)]
  local r = redis.call('HMGET', meta, 'e', 's', 'f', 'b', 'l', 'c', 'x', 'k', 'r', 'K', 'i', 'A', 'kn', 'kb', 'dl', 'o')
  local epoch = r[1]
  if not epoch then return 'gone' end                                   -- append never makes a channel
  if r[10] ~= kind then return 'unknown' end
  if r[11] ~= making then return 'ended' end                            -- a namesake
  if r[6] then return r[6] end                                          -- ended, failed, full, unused
  if fence ~= '' and fence ~= r[7] then return 'fenced' end
  local m = { top = tonumber(r[2]), first = tonumber(r[3]), bytes = tonumber(r[4]), age = tonumber(r[12]) }
  local kn, kb = tonumber(r[13] or '0'), tonumber(r[14] or '0')
  if ids then redis.call('ZCARD', ids); redis.call('HLEN', at) end      -- a wrong type shows before the first write
  local lost = state and redis.call('HLEN', state) ~= kn
  if lost then redis.call('DEL', state, log); kn, kb, m.first, m.bytes = 0, 0, m.top + 1, 0 end
  held(log, m)
  if r[5] ~= gen or lost then
    epoch = fresh; redis.call('HSET', meta, 'e', epoch, 'q', m.top, 'l', gen)
  end
  if ids then                                                           -- forget those of a lost generation, and old ones
    if r[15] ~= gen then redis.call('DEL', ids, at); redis.call('HSET', meta, 'dl', gen) end
    local old = redis.call('ZRANGEBYSCORE', ids, 0, now - AGE, 'LIMIT', 0, 1000)
    for _, id in ipairs(old) do redis.call('ZREM', ids, id); redis.call('HDEL', at, id) end
  end
  local start, line, new = m.top, {}, {}
  local sent = kind == 'P' and tonumber(r[8] or '0') or start + #messages
  for _, msg in ipairs(messages) do
    local data, known, keys, bytes = msg.data, ids and msg.id ~= '' and redis.call('HGET', at, msg.id), kn, kb
    if known then line[#line + 1] = known else
      if state then                                                     -- what the state would then be
        local change = {}
        for key, value in pairs(msg.sets) do change[key] = #key + #value end; for key in pairs(msg.deletes) do change[key] = 0 end
        for key, cost in pairs(change) do
          local had = redis.call('HGET', state, key)
          if had then keys, bytes = keys - 1, bytes - #key - #had end
          if cost > 0 then keys, bytes = keys + 1, bytes + cost end
        end
      end
      if state and keys > kn and keys > tonumber(g[11]) or bytes > kb and bytes > most then line[#line + 1] = 'keys'
      else
        if m.age then data = string.format('%.0f %s', now, data) end
        while m.top >= m.first and (m.top + 1 - m.first >= size or m.bytes + #data > most) do
          if m.first > sent then                                        -- never sent: the channel is over
            redis.call('DEL', log); redis.call('HSET', meta, 'c', 'full', 's', start, 'f', start + 1, 'b', 0)
            local frame, owner = 'c' .. epoch .. ' full ' .. topic, r[16] and ARGV[5] .. r[16]
            if r[9] then redis.call(ARGV[2], r[9], frame) end
            if owner and owner ~= r[9] then redis.call(ARGV[2], owner, frame) end
            return 'full'                                               -- none of the n counts as stored
          end
          m.bytes, m.first = m.bytes - #redis.call('LPOP', log), m.first + 1
        end
        redis.call('RPUSH', log, data); m.top, m.bytes = m.top + 1, m.bytes + #data
        new[#new + 1] = data; line[#line + 1] = epoch .. '.' .. m.top
        if state then
          for key, value in pairs(msg.sets) do redis.call('HSET', state, key, value) end
          for key in pairs(msg.deletes) do redis.call('HDEL', state, key) end; kn, kb = keys, bytes
        end
        if ids and msg.id ~= '' then redis.call('ZADD', ids, now, msg.id); redis.call('HSET', at, msg.id, line[#line]) end
      end
    end
  end
  redis.call('HSET', meta, 's', m.top, 'f', m.first, 'b', m.bytes, unpack(fence == '' and { 'u', now } or {}))
  if state then redis.call('HSET', meta, 'kn', kn, 'kb', kb) end
  if ids then
    local over = redis.call('ZCARD', ids) - IDS
    for _, id in ipairs(over > 0 and redis.call('ZRANGE', ids, 0, over - 1) or {}) do
      redis.call('ZREM', ids, id); redis.call('HDEL', at, id)
    end
    redis.call('PEXPIRE', ids, AGE); redis.call('PEXPIRE', at, AGE)
  end
  if g[8] ~= '' then redis.call('PEXPIRE', meta, g[8]); if state then redis.call('PEXPIRE', state, g[8]) end end
  if g[9] ~= '' then redis.call('PEXPIRE', log, g[9]) end
  local to, i = topic, 1
  if OWN[kind] then to = r[9] end                                       -- the inbox of the reader
  while to and i <= #new do                                             -- frames of at most 256 KiB, or one message
    local frame, bytes = { 'm', epoch, ' ', start + i, ' ', OWN[kind] and topic or '', '\n' }, 0
    repeat
      frame[#frame + 1] = #new[i] .. ':' .. new[i]; bytes, i = bytes + #new[i], i + 1
    until i > #new or bytes + #new[i] > FRAME
    redis.call(ARGV[2], to, table.concat(frame))
  end
  return 'ok ' .. epoch .. ' ' .. m.top .. ' ' .. table.concat(line, ' ')   -- one position per message
end
local a, k, out = 6, 3, {}
while a <= #ARGV do
  local g = { unpack(ARGV, a, a + 11) }
  g.ids, g.state = string.find(g[10], 'i', 1, true), string.find(g[10], 's', 1, true)
  local messages = {}; a = a + 12
  local function take() a = a + 1; return ARGV[a - 1] end
  for i = 1, tonumber(g[12]) do
    local msg = { data = take() }
    if g.ids then msg.id = take() end
    if g.state then
      msg.sets, msg.deletes = {}, {}
      for _ = 1, tonumber(take()) do local key = take(); msg.sets[key] = take() end
      for _ = 1, tonumber(take()) do msg.deletes[take()] = true end
    end
    messages[i] = msg
  end
  local ok, line = pcall(group, g, k, messages)
  if not ok then line = 'wrong ' .. KEYS[k] .. ' ' .. string.gsub(type(line) == 'table' and line.err or tostring(line), '%s', ' ') end
  out[#out + 1] = line
  k = k + 2 + (g.ids and 2 or 0) + (g.state and 1 or 0)
end
local r = table.concat(out, '\n')
redis.call('HSET', KEYS[1], 'n', ARGV[1], 'r', r); redis.call('PEXPIRE', KEYS[1], 600000)
return r
