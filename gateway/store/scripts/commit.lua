-- Writes changes, each whole or not at all. Compares and writes; holds no rule of the house.
--
-- KEYS     every key it touches; on a Cluster all of one slot
-- ARGV[1]  msgpack: {process, number, stamp, channel, types, groups, copies}
--   process its name; none for what may be done twice, which leaves no number and has old ones forgotten
--   types   what each key must be, if it is there
--   copies  whether replicas are waited for after this
--   group   {key of the tenant's document, changes}: all changes of one tenant
--   change  {checks, writes, news or nothing, turn, counted}; turn: -1 needs none, 0 waits for its own, 1 asks
--           for one; counted: the sorted sets whose size is told once it is applied
-- ARGV[2]  msgpack: of each group, of each change, the commands that read what its moves will want to know,
--          or nothing
-- ARGV[#]  the nonce
-- Reply    the nonce, and {told, read}
--   told    msgpack: {number, microseconds by Redis' clock, {{verdict, lost or sizes...}...}...}
--   read    for each change that was refused, in order, the replies to its commands
--   a applied, m version moved, s something else is not as expected, c too late,
--   w another's turn, and the place in line; t a key is not of its type: nothing is read
--
-- Types are looked at before anything is written for anybody. A change is then checked to the end before its
-- first write, and what it writes has been proven to work: keys are of their type, numbers of streams are
-- above their last. A number that was written down answers for itself, so that the same bytes may be sent
-- again. What was refused is read after all is written: the state as this script leaves it.

local ask, nonce = cmsgpack.unpack(ARGV[1]), ARGV[#ARGV]
local me, number, stamp, channel, types, groups, copies = unpack(ask)
local LATE, EARLY, RESERVED, FORGET, MANY = 1800, 50, 100, 3600000, 40

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local odd = false -- keys that are something else, by their number
for i, key in ipairs(KEYS) do
  local is = redis.call('TYPE', key).ok
  if is ~= 'none' and is ~= types[i] then
    odd = odd or {}
    odd[i] = true
  end
end

-- Returns whether a group names a key that is something else.
local function mistyped(group)
  if odd[group[1]] then return true end
  for _, change in ipairs(group[2]) do
    for _, c in ipairs(change[1]) do
      if odd[c[2]] then return true end
    end
    for _, w in ipairs(change[2]) do
      if odd[w[2]] then return true end
    end
  end
  return false
end

local function figure(key, field)
  return tonumber(redis.call('HGET', key, field) or 0) or 0
end

local function above(key, version)
  return #redis.call('XREVRANGE', key, '+', string.format('%.0f-0', version), 'COUNT', 1) == 0
end

-- What a change expects: {kind, key, ...}. Returns whether it is so.
local expects = {
  v = function(c)                                                             -- version, of a tenant its story too
    if not c[5] then return figure(c[2], 'v') == c[3] end
    local kept = redis.call('HMGET', c[2], 'v', 'd')
    if (tonumber(kept[1] or 0) or 0) ~= c[3] then return false end
    return not kept[2] or string.find(kept[2], c[5], 1, true) ~= nil
  end,
  k = function(c)                                                             -- key free, or run out by then
    local at = redis.call('HGET', c[2], 'a')
    return not at or tonumber(at) <= c[3]
  end,
  f = function(c) return figure(c[2], c[3]) == c[4] end,                      -- lease held
  e = function(c) return redis.call('HEXISTS', c[2], c[3]) == c[4] end,       -- there, or not
  n = function(c) return redis.call('HLEN', c[2]) == c[3] end,                -- as many as were seen
  q = function(c) return not redis.call('ZSCORE', c[2], c[3]) end,            -- no longer due
  o = function(c) return figure(c[2], 'shut') == 0 end,                       -- the tenant is not shut
  x = function(c) return above(c[2], c[3]) end,                               -- stream is below
}

-- Returns the verdict on a change: a letter, and the names of those whose lease is lost.
local function verdict(checks)
  local letter, lost = 'a', {}
  for i, c in ipairs(checks) do
    c[2] = KEYS[c[2]]
    if not expects[c[1]](c) then
      if c[1] == 'v' and i == 1 and c[4] == 1 then return 'm', lost end
      if c[1] == 'f' then lost[#lost + 1] = c[5] end
      letter = 's'
    end
  end
  return letter, lost
end

local news = {}

-- Writes a change; returns the sizes it asks for.
local function write(change)
  for _, w in ipairs(change[2]) do
    w[2] = KEYS[w[2]]
    redis.call(unpack(w))
  end
  if change[3] ~= '' then news[#news + 1] = change[3] end
  local sizes = {}
  for i, key in ipairs(change[5]) do sizes[i] = redis.call('ZCARD', KEYS[key]) end
  return sizes
end

-- Forgets numbers of processes that have long been silent, where there are more than so many fields.
local function forget(doc, many)
  if redis.call('HLEN', doc) <= many then return end
  local all = redis.call('HGETALL', doc)
  for i = 1, #all, 2 do
    local at = string.sub(all[i], 1, 3) == 'op:' and string.match(all[i + 1], ':(%d+)$')
    if at and tonumber(at) < now - FORGET then redis.call('HDEL', doc, all[i]) end
  end
end

-- Who may write to a tenant, in turn, where many want to: the first until `till`, then the next as long. A
-- clock that went back makes no turn longer.
-- Returns {names} and `till`, without those whose time is up.
local function line(kept)
  local names, till = {}, 0
  for word in string.gmatch(kept or '', '%S+') do names[#names + 1] = word end
  if #names > 0 then till = math.min(tonumber(table.remove(names, 1)), now + RESERVED) end
  while #names > 0 and till <= now do
    table.remove(names, 1)
    till = till + RESERVED
  end
  return names, till
end

local function keep_line(doc, names, till)
  if #names == 0 then
    redis.call('HDEL', doc, 'line')
  else
    redis.call('HSET', doc, 'line', string.format('%.0f ', till) .. table.concat(names, ' '))
  end
end

-- Returns this process' place in a line, from 1, after it was put there if it was not.
local function placed(names)
  for at, name in ipairs(names) do
    if name == me then return at end
  end
  names[#names + 1] = me
  return #names
end

-- Writes down what became of a number. Where replicas are waited for that is done for mere answers too: what
-- is waited for is a write, and the answer may tell of another's that they have not got yet.
local function settle(doc, changes, kept)
  local letters, answers, wrote = {}, {}, false
  local names, till = line(kept)
  for i, change in ipairs(changes) do
    local letter, lost = 'c', {}
    if stamp >= now - LATE and stamp <= now + EARLY then
      if change[4] >= 0 and names[1] and names[1] ~= me then
        letter, lost = 'w', { placed(names) }
        keep_line(doc, names, till)
      else
        letter, lost = verdict(change[1])
      end
    end
    if letter == 'a' then
      lost = write(change)
      wrote = wrote or #change[2] > 0
      if change[4] >= 0 and kept then
        table.remove(names, 1)
        keep_line(doc, names, now + RESERVED)
      end
    elseif letter == 'm' and change[4] == 1 then
      placed(names)
      keep_line(doc, names, now + RESERVED)
    end
    letters[i] = letter
    answers[i] = { letter, unpack(lost) }
  end
  local shown = copies and string.find(table.concat(letters), 'a') and redis.call('HEXISTS', doc, 'v') == 1
  if wrote and me == '' then
    forget(doc, 0)
  elseif wrote or shown then
    redis.call('HSET', doc, 'op:' .. me, string.format('%.0f:%s:%.0f', number, table.concat(letters), now))
    forget(doc, MANY)
  end
  return answers
end

-- Returns the verdicts on a group: as written down, if its number was, else as its changes are settled.
local function judged(group)
  local doc, answers = KEYS[group[1]], {}
  local kept = redis.call('HMGET', doc, 'op:' .. me, 'line')
  local known, letters = string.match(kept[1] or '0:', '^(%d+):(%a*)')
  known = tonumber(known)
  if known < number then return settle(doc, group[2], kept[2]) end
  if copies then redis.call('HSET', doc, 'op:' .. me, kept[1]) end
  for i = 1, #group[2] do
    local first = known == number and string.sub(letters, i, i)
    answers[i] = { first == 'a' and 'a' or (first and 's' or 'c') }
  end
  return answers
end

local verdicts, read, refused = {}, {}, {}
for g, group in ipairs(groups) do
  if odd and mistyped(group) then
    verdicts[g] = {}
    for i = 1, #group[2] do verdicts[g][i] = { 't' } end
  else
    verdicts[g] = judged(group)
    for i, verdict in ipairs(verdicts[g]) do
      if verdict[1] ~= 'a' then refused[#refused + 1] = { g, i } end
    end
  end
end

if #news > 0 then redis.call('PUBLISH', channel, '["' .. me .. '",[' .. table.concat(news, ',') .. ']]') end

-- Returns the replies to commands; nothing where one is of a key that is something else.
local function replies(commands)
  local all = {}
  for at, command in ipairs(commands) do
    if odd and odd[command[2]] then return nil end
    command[2] = KEYS[command[2]]
    all[at] = redis.call(unpack(command))
  end
  return all
end

if #refused > 0 then
  local wants = cmsgpack.unpack(ARGV[2])
  for _, place in ipairs(refused) do
    local g, i = place[1], place[2]
    local found = replies(wants[g] and wants[g][i] or {})
    if found then
      read[#read + 1] = found
    else
      verdicts[g][i] = { 't' }
    end
  end
end
return { nonce, { cmsgpack.pack({ number, time[1] * 1000000 + time[2], verdicts }), read } }
