-- What the scripts of people begin with, after `common`.
-- Fields of a session: u user (JSON), d default process, n how many default processes there were, w '1' if kept without a process
-- Fields of a process: s session, r reader ('WORKER:n'), i inbox of the reader, ra when it came (µs), seen ms of its last connection, x ms of its closing,
--   k:WORKER since when it is connected there, w:WORKER keeps state of it,
--   b worker that says farewell, once closed,
--   u user of the session that was left without a process by its closing, w '1' if that session is kept
local FIRST, LATE = 30000, 90000                         -- ms until the first connection; that a deadline lies beyond the timeout
local CLOSED = 3600000                                   -- how long the record of a closed process stays once all is done, in ms
local KEPT = 2592000000                                  -- how long a kept session without a process stays, in ms: 30 days
local HEIR, REPEATED = 10000, 600000                     -- how long a former id leads to its heir, and its `move` may be repeated
local function heir_of(f)                                -- the id that has followed: lately, and at any time
  local found = redis.call('GET', f)
  local id = found and string.match(found, '^%S+')
  return id and redis.call('PTTL', f) > REPEATED - HEIR and id, id
end
local function refused(p, session)                       -- why a connection of this session may not use the process
  local r = redis.call('HMGET', p, 's', 'x')
  if not r[1] or r[2] then return { 'gone' } end
  if r[1] ~= session then return { 'moved', r[1] } end
end
local function connect(p, exp, id, worker, timeout)
  redis.call('HSET', p, 'k:' .. worker, now, 'seen', now)
  redis.call('ZADD', exp, now + timeout + LATE, id)
end
local function bury(p, since, alive)                      -- forgets workers that were dead at `since`; returns whether another one is connected
  local all, connected = redis.call('HGETALL', p), false
  for i = 1, #all, 2 do
    local has, worker = string.match(all[i], '^([kw]):(.*)$')
    if worker and not alive[worker] and tonumber(all[i + 1]) < since then redis.call('HDEL', p, all[i])
    elseif has == 'k' then connected = true end
  end
  return connected
end
local function close(p, exp, closing, id)                -- phase one; its session forgets it as well
  redis.call('HSET', p, 'x', now)
  redis.call('PEXPIRE', p, KEPT)                         -- until `finish`
  redis.call('ZREM', exp, id)
  redis.call('ZADD', closing, now, id)
end
local function retire(session, count)                    -- leaves of a session how many default processes there were
  redis.call('DEL', session)
  if count then
    redis.call('HSET', session, 'n', count)
    redis.call('PEXPIRE', session, CLOSED)
  end
end
local function forget(session, sp, id, p)
  local s = redis.call('HMGET', session, 'd', 'w', 'n', 'u')
  redis.call('ZREM', sp, id)
  if s[1] == id then redis.call('HDEL', session, 'd') end
  if redis.call('EXISTS', sp) == 1 then return end
  if s[4] then redis.call('HSET', p, 'u', s[4], 'w', s[2] or '') end
  if s[2] then redis.call('PEXPIRE', session, KEPT) else retire(session, s[3]) end
end
