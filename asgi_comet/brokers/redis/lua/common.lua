-- What every script that touches a log begins with.
-- Fields of a record: K kind (S site, N newest, K keyed, P own, U own and on demand), i token of its making,
--   e epoch, q top when it began, s top, f first, b bytes, l generation, z size, m most bytes, A max age in ms, c why it ended,
--   o owner, x fence, t traits (s: one worker has its source, r: ends once unused), h how the owner before left ('1': handed over), y what `own` answered of h, g guard,
--   u last use in ms, kn kb keys and bytes of the state, dl generation of the ids,
--   r inbox of the reader, k highest offset sent, a highest offset acknowledged, of which the reader lacks
--   those after ja up to j: it was told `full`; of an earlier epoch, if so: offsets go on
-- A topic of an own channel is its name, and never published to.
local function lineage(lin, fresh, durable)              -- the generation that this server's data belong to
  local ok, text = pcall(redis.call, 'INFO', 'replication')
  if not ok or type(text) ~= 'string' then return '-' end                -- INFO is forbidden
  local id = string.match(text, 'master_replid:(%w+)')
  local l = redis.call('HMGET', lin, 'id', 'run', 'gen')
  if l[3] and l[1] == id then return l[3] end
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  local promoted = not string.find(text, 'second_repl_offset:-1', 1, true)
  local gen = l[3]
  if not gen or promoted or (l[2] ~= run and durable == '') then gen = fresh end   -- else a replica came or went
  redis.call('HSET', lin, 'id', id, 'run', run, 'gen', gen)
  return gen
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local OWN = { P = true, U = true }
local ENDED = 600000                                     -- how long the record of an ended channel stays, in ms
local function tell(publish, frame, kind, topic, inbox)   -- frames of an own channel go to the inbox of its reader, if there is one
  if not OWN[kind] then redis.call(publish, topic, frame) elseif inbox then redis.call(publish, inbox, frame) end
end
local function held(log, m)                              -- m: top, first, bytes, age. What is held, after lost and old ones
  if redis.call('LLEN', log) ~= m.top + 1 - m.first then
    redis.call('DEL', log)
    m.first, m.bytes = m.top + 1, 0
  end
  while m.age and m.first <= m.top do
    local old = redis.call('LINDEX', log, 0)
    if tonumber(string.match(old, '^%d+')) >= now - m.age then break end
    redis.call('LPOP', log)
    m.first, m.bytes = m.first + 1, m.bytes - #old
  end
end
