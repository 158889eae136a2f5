-- move: a session gets another id, and another user. KEYS: session, new session, sp, new sp, f, exp, closing, processes ….
-- ARGV: session, new session, user ('': none), '1' to keep it without a process, processes …
local new, user, keep = ARGV[2], ARGV[3], ARGV[4] == '1'
local done = redis.call('GET', KEYS[5])
local function answer(text)
  local _, what, ids = string.match(text, '^(%S+) (%S+) ?(.*)$')
  return { what, ids }
end
if done and string.match(done, '^%S+') == new then return answer(done) end     -- its own retry
if redis.call('EXISTS', KEYS[2], KEYS[4]) > 0 then                             -- the same, later
  return { 'moved', table.concat(redis.call('ZRANGE', KEYS[4], 0, -1), ' ') }
end
local heir = heir_of(KEYS[5])
if heir then return { 'stale', heir } end
local ids, known = redis.call('ZRANGE', KEYS[3], 0, -1), {}
for i = 5, #ARGV do known[ARGV[i]] = KEYS[i + 3] end
local same = #ids == #ARGV - 4
for _, id in ipairs(ids) do same = same and known[id] end
if not same then return { 'others', table.concat(ids, ' ') } end
ids = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  if redis.call('EXISTS', known[id]) == 1 then ids[#ids + 1] = id else redis.call('ZREM', KEYS[3], id) end  -- its record is lost
end
local s = redis.call('HMGET', KEYS[1], 'u', 'd', 'n')
local closes = s[1] and s[1] ~= user
retire(KEYS[1], s[3])
redis.call('DEL', KEYS[2], KEYS[4])
if user ~= '' then redis.call('HSET', KEYS[2], 'u', user) end
if keep then redis.call('HSET', KEYS[2], 'w', '1') end
for _, id in ipairs(ids) do
  if closes then
    close(known[id], KEYS[6], KEYS[7], id)
    redis.call('HSET', known[id], 'u', s[1])
  else redis.call('HSET', known[id], 's', new) end
end
if closes or #ids == 0 then
  redis.call('DEL', KEYS[3])
  if keep then redis.call('PEXPIRE', KEYS[2], KEPT) else redis.call('DEL', KEYS[2]) end
else
  redis.call('RENAME', KEYS[3], KEYS[4])
  if s[2] then redis.call('HSET', KEYS[2], 'd', s[2]) end
end
local text = table.concat({ new, closes and 'closed' or 'moved', unpack(ids) }, ' ')
redis.call('SET', KEYS[5], text, 'PX', REPEATED)
return answer(text)
