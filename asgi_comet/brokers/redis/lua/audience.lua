-- What the scripts of notifiers begin with, after `common`.
-- pk: NOTIFIER␟KEY of each key that the process listens on; ␟NOTIFIER␟KEY of a former one whose set may still have the process
local SEPARATOR = '\31'
local function report(publish, inboxes, process, frame)  -- to the workers that have connections or state of the process
  local told = {}
  for _, name in ipairs(redis.call('HKEYS', process)) do
    local worker = string.match(name, '^[kw]:(.*)$')
    if worker and not told[worker] then
      told[worker] = true
      redis.call(publish, inboxes .. worker, frame)
    end
  end
end
local function is_past(pc, name) return redis.call('HEXISTS', pc, ':' .. name) == 1 end
